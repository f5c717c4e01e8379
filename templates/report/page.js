// What every report has: a link opens the fold around its target, and buttons copy a block of text.
function reveal() {
  const target = document.getElementById(location.hash.slice(1));
  const fold = target?.closest("details");
  if (!fold || fold.open) return;
  fold.open = true;
  target.scrollIntoView();
}

addEventListener("hashchange", reveal);
reveal();

for (const button of document.querySelectorAll("button[data-copied]")) { // where the browser allows no copy, they select
  button.hidden = false;
  button.addEventListener("click", async () => {
    const block = document.getElementById(button.dataset.copied);
    getSelection().selectAllChildren(block);
    const isCopied = await navigator.clipboard?.writeText(block.textContent).then(() => true, () => false);
    button.textContent = isCopied ? "Copied" : "Selected";
  });
}
