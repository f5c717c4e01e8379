// Tables whose headings sort them. Strings enter a page only through textContent.
const collator = new Intl.Collator("en", { numeric: true });

function order(one, other) {
  if (one === "" || other === "") return one === other ? 0 : one === "" ? 1 : -1; // unknown values come last
  const [a, b] = [Number(one), Number(other)];
  return Number.isNaN(a) || Number.isNaN(b) ? collator.compare(one, other) : a - b;
}

function sortedBy(items, key, sign) {
  return [...items].sort((a, b) =>
    key(a) === "" || key(b) === "" ? order(key(a), key(b)) : sign * order(key(a), key(b)));
}

// Makes each heading of a table a button. sort(column, sign) is called with 1 for ascending, -1 for descending.
function sortable(table, sort) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const isDescending = head.getAttribute("aria-sort") === "ascending";
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      sort(column, isDescending ? -1 : 1);
    });
  });
}

const NKO = /[\u07c0-\u07ff]/;

function isolated(content) { // a text from a row, in a direction of its own
  const element = document.createElement("bdi");
  element.textContent = content;
  if (NKO.test(content)) Object.assign(element, { lang: "nqo", dir: "rtl" });
  return element;
}
