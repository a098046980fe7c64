// The index: the filter, by the name of a video or by an action, and the theme.
const field = document.getElementById("filter"), cards = [...document.getElementById("cards").children];
const picks = [...document.querySelectorAll(".pick")];
let action = null; // picked in the table: videos with exactly this action

const sift = () => {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let left = 0;
  for (const card of cards) {
    const has = card.dataset.names.split("\n"), text = (card.textContent + "\n" + card.dataset.names).toLowerCase();
    card.hidden = !words.every((word) => text.includes(word)) || (action !== null && !has.includes(action));
    left += !card.hidden;
  }
  document.getElementById("count").value = `${left} of ${cards.length} video${cards.length === 1 ? "" : "s"}${action === null ? "" : ` with “${action}”`}`;
  document.getElementById("all").hidden = left === cards.length;
  for (const pick of picks) pick.setAttribute("aria-pressed", pick.textContent === action);
};
for (const pick of picks) {
  pick.addEventListener("click", () => {
    action = action === pick.textContent ? null : pick.textContent;
    sift();
    // On a phone what changed lies below the table.
    if (action !== null && document.getElementById("cards").getBoundingClientRect().top > innerHeight - 120) document.getElementById("which").scrollIntoView();
  });
}
field.addEventListener("input", sift);
document.getElementById("all").addEventListener("click", () => { action = null; field.value = ""; sift(); field.focus(); });
themed(() => {});
sift();
