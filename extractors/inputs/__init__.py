"""From snippets to the inputs of the networks, on the CPU or on an accelerator."""
