// Sorts the table of runs and compares any two of them. Strings enter the page only through textContent.
"use strict";
const table = document.getElementById("runs");
const body = table.tBodies[0];
const text = new Intl.Collator("en", { numeric: true });

function order(one, other) {
  if (one === "" || other === "") return one === other ? 0 : one === "" ? 1 : -1; // unknown values come last
  const [a, b] = [Number(one), Number(other)];
  return Number.isNaN(a) || Number.isNaN(b) ? text.compare(one, other) : a - b;
}

[...table.tHead.rows[0].cells].forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const isDescending = head.getAttribute("aria-sort") === "ascending";
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value;
    const sign = isDescending ? -1 : 1;
    const sorted = [...body.rows].sort((a, b) =>
      key(a) === "" || key(b) === "" ? order(key(a), key(b)) : sign * order(key(a), key(b)));
    body.append(...sorted);
  });
});

const { same, runs } = JSON.parse(document.getElementById("facts").textContent); // same: number of keys whose value all runs share
const choices = ["one", "other"].map((id) => document.getElementById(id));
const differences = document.getElementById("differences");
const count = document.getElementById("count");

function cell(row, kind, content) {
  const element = document.createElement(kind);
  const isolated = document.createElement("bdi");
  isolated.textContent = content;
  if (/[\u07c0-\u07ff]/.test(content)) isolated.lang = "nqo";
  element.append(isolated);
  if (kind === "th") element.scope = "row";
  row.append(element);
}

function compare() {
  const [one, other] = choices.map((choice) => runs[choice.value]);
  const keys = [...new Set([...Object.keys(one), ...Object.keys(other)])].sort();
  const differing = keys.filter((key) => one[key] !== other[key]);
  differences.tBodies[0].replaceChildren(...differing.map((key) => {
    const row = document.createElement("tr");
    cell(row, "th", key);
    for (const side of [one, other]) cell(row, "td", side[key] === undefined ? "–" : side[key]);
    return row;
  }));
  choices.forEach((choice, number) => { differences.tHead.rows[0].cells[number + 1].textContent = choice.value; });
  count.textContent = `${differing.length} of ${same + keys.length} keys differ.`;
}

if (choices[0].options.length > 1) {
  choices[1].selectedIndex = 1;
  choices.forEach((choice) => choice.addEventListener("change", compare));
  document.getElementById("comparison").hidden = false;
  compare();
}
