// The table of all test rows: sorted, filtered, fifty at a time. Strings enter the page only through textContent.
const PAGE = 50;
const { fields, rows } = JSON.parse(document.getElementById("row-data").textContent);
const all = rows.map((values) => {
  const row = Object.fromEntries(fields.map((name, at) => [name, values[at] ?? ""]));
  row.change = row.before === "" ? "" : row.after - row.before;
  return row;
});
const part = (name) => document.getElementById(`rows-${name}`);
const table = part("table");
const CHOICES = ["partition", "source", "verdict"];
const COLUMNS = ["number", "partition", "source", "group", "length", "before", "after", "change", "verdict"];
const varied = (name) => new Set(all.map((row) => row[name])).size > 1;
const groups = new Set(all.map((row) => row.group)).size;
const isShown = { group: groups > 1 && groups < all.length };
for (const name of CHOICES) isShown[name] = varied(name);
const columns = COLUMNS.filter((name) => isShown[name] ?? true);
let [chosen, first] = [all, 0];

function element(name, attributes, ...content) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...content);
  return made;
}

function pair(expected, word) {
  return element("span", { className: "sub" }, element("span", { className: "old" }, expected), " ", element("span", { className: "new" }, word));
}

function words(text, reference, codes) { // as templates/report/macros.html.j2 shows an alignment
  const [given, expected] = [text, reference].map((each) => (each ? each.split(" ") : []));
  const line = isolated("");
  const isNko = NKO.test(text || reference);
  const shown = (word) => (isNko === NKO.test(word) ? word : isolated(word));
  if (isNko) Object.assign(line, { lang: "nqo", dir: "rtl" });
  let [at, other] = [0, 0];
  for (const code of codes) {
    const word = code === "d" ? "" : shown(given[at++]);
    const missing = code === "i" ? "" : shown(expected[other++]);
    if (code === "=") line.append(word, " ");
    else if (code === "s") line.append(pair(missing, word), " ");
    else line.append(element(code === "d" ? "del" : "ins", {}, code === "d" ? missing : word), " ");
  }
  return line;
}

function lined(text) {
  return text ? text.split("\n").map((line) => element("div", { dir: "auto" }, isolated(line))) : [element("i", {}, "empty")];
}

function texts(row) {
  const [first, ...others] = row.texts;
  const names = row.kind === "chat" ? ["Prompt", "Expected", "Base", "Adapter"] : ["Reference", "Hypothesis", "Adapter's answer"];
  const shown = row.texts.map((text, at) => (at && row.codes.length ? [words(text, first, row.codes[at - 1])] : lined(text)));
  const list = element("dl", { className: "side" }, ...names.map((name, at) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, ...shown[at]))));
  const note = row.verdict ? `The gate ${row.verdict} the answer: ${row.reason}` : "";
  return element("tr", { className: "texts" }, element("td", { colSpan: columns.length }, list, element("small", {}, isolated(note))));
}

function toggle(button, row) {
  const [line, isOpen] = [button.closest("tr"), button.getAttribute("aria-expanded") === "true"];
  button.setAttribute("aria-expanded", String(!isOpen));
  if (isOpen) line.nextElementSibling.remove();
  else line.after(texts(row));
}

function append(body, row) {
  const button = element("button", { type: "button" }, String(row.number));
  button.setAttribute("aria-expanded", "false");
  const line = element("tr", {}, element("th", { scope: "row" }, button, " ", element("small", {}, isolated(row.id))));
  for (const name of columns.slice(1)) {
    const value = row[name];
    const text = value === "" ? "–" : name === "change" && value > 0 ? `+${value}` : String(value);
    line.append(element("td", { className: typeof value === "number" ? "n" : "" }, isolated(text)));
  }
  body.append(line);
  button.addEventListener("click", () => toggle(button, row));
  if (part("texts").checked) toggle(button, row);
}

function show(from) {
  first = Math.max(0, from);
  const page = chosen.slice(first, first + PAGE);
  table.tBodies[0].replaceChildren();
  for (const row of page) append(table.tBodies[0], row);
  part("count").textContent = page.length ? `Rows ${first + 1} to ${first + page.length} of ${chosen.length}` : "No row";
  part("back").disabled = first === 0;
  part("on").disabled = first + PAGE >= chosen.length;
}

let sorted = all;

function filter() {
  const sought = part("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const group = part("group").value.toLowerCase();
  const [from, to] = ["from", "to"].map((name) => part(name).value);
  const picked = CHOICES.map((name) => [name, part(name).value]).filter(([, value]) => value !== "");
  chosen = sorted.filter((row) => {
    row.all ??= [row.id, ...row.texts].join(" ").toLowerCase();
    return picked.every(([name, value]) => `=${row[name]}` === value) && row.group.toLowerCase().includes(group)
      && (from === "" || row.length >= from) && (to === "" || row.length <= to) && sought.every((word) => row.all.includes(word));
  });
  show(0);
}

COLUMNS.forEach((name, at) => { if (!columns.includes(name)) table.tHead.rows[0].cells[at].hidden = true; });
[...table.tHead.rows[0].cells].filter((head) => head.hidden).forEach((head) => head.remove());
sortable(table, (column, sign) => {
  sorted = sortedBy(all, (row) => row[columns[column]], sign);
  filter();
});
for (const name of CHOICES) {
  const values = [...new Set(all.map((row) => row[name]))].sort(collator.compare);
  part(name).append(...values.map((value) => element("option", { value: `=${value}` }, value || "none")));
  part(name).closest("label").hidden = !isShown[name];
}
part("group").closest("label").hidden = !isShown.group;
part("filters").addEventListener("input", filter);
part("texts").addEventListener("input", () => show(first));
part("back").addEventListener("click", () => show(first - PAGE));
part("on").addEventListener("click", () => show(first + PAGE));
part("note").remove();
part("part").hidden = false;
show(0);
