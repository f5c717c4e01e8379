// Buttons that copy a block of text; where the browser allows no copy, they select it.
for (const button of document.querySelectorAll("button[data-copied]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const block = document.getElementById(button.dataset.copied);
    getSelection().selectAllChildren(block);
    const isCopied = await navigator.clipboard?.writeText(block.textContent).then(() => true, () => false);
    button.textContent = isCopied ? "Copied" : "Selected";
  });
}
