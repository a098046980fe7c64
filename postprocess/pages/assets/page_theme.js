// Dark or light: as the system says, until somebody presses the button; then as they chose, on every page.
const THEME = "jcdnet:theme";
const remember = (key, text) => { try { localStorage.setItem(key, text); return true; } catch { return false; } };
const recall = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const themed = (changed) => {
  const root = document.documentElement, kept = recall(THEME);
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = (root.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark" ? "light" : "dark";
    remember(THEME, root.dataset.theme);
    changed();
  });
  systemDark.addEventListener("change", changed);
};
