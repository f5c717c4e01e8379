// Sorts and filters the table of runs, draws the losses of those it shows, and compares any two of them.
const table = document.getElementById("runs");
const body = table.tBodies[0];

sortable(table, (column, sign) => {
  body.append(...sortedBy(body.rows, (row) => row.cells[column].dataset.value, sign));
  draw();
});

const { same, runs, curves } = JSON.parse(document.getElementById("facts").textContent); // same: number of keys whose value all runs share
const choices = ["one", "other"].map((id) => document.getElementById(id));
const differences = document.getElementById("differences");
const count = document.getElementById("count");

function cell(row, kind, content) {
  const element = document.createElement(kind);
  element.append(isolated(content));
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

const MOST = 12; // more lines than that cannot be told apart
const [WIDTH, HEIGHT, LEFT, TOP, BOTTOM] = [720, 280, 52, 10, 36];
const figure = document.getElementById("curves");

function mark(parent, name, attributes, content) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (content !== undefined) element.textContent = content;
  parent.append(element);
  return element;
}

function pen(number) { // a colour and a form for each line
  const dashes = ["", "6 3", "2 2"];
  return { stroke: `hsl(${(number * 137) % 360} 65% 50%)`, "stroke-dasharray": dashes[number % 3] };
}

function draw() {
  const names = [...body.rows].filter((row) => !row.hidden).map((row) => row.cells[0].dataset.value);
  const drawn = names.filter((name) => (curves[name] || []).length > 1).slice(0, MOST);
  figure.hidden = drawn.length === 0;
  const svg = figure.querySelector("svg");
  const legend = document.getElementById("legend");
  svg.replaceChildren(svg.querySelector("title"));
  legend.replaceChildren();
  if (figure.hidden) return;
  const points = drawn.flatMap((name) => curves[name]);
  const last = Math.max(...points.map(([step]) => step), 1);
  const losses = points.map(([, loss]) => loss);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const x = (step) => LEFT + (WIDTH - LEFT - 10) * step / last;
  const y = (loss) => TOP + (HEIGHT - TOP - BOTTOM) * (high === low ? 0.5 : (high - loss) / (high - low));
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    const loss = low + (high - low) * part;
    mark(svg, "line", { class: "grid", x1: LEFT, x2: WIDTH - 10, y1: y(loss), y2: y(loss) });
    mark(svg, "text", { x: LEFT - 6, y: y(loss) + 4, "text-anchor": "end" }, loss.toPrecision(3));
    mark(svg, "text", { x: x(last * part), y: HEIGHT - 18, "text-anchor": "middle" }, String(Math.round(last * part)));
  }
  mark(svg, "text", { x: (WIDTH + LEFT) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, "step");
  drawn.forEach((name, number) => {
    const line = curves[name].map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
    mark(svg, "polyline", { points: line, ...pen(number) });
    const item = document.createElement("li");
    mark(mark(item, "svg", { viewBox: "0 0 32 12", "aria-hidden": "true" }), "line", { x1: 0, x2: 32, y1: 6, y2: 6, "stroke-width": 3, ...pen(number) });
    const label = document.createElement("bdi");
    label.textContent = ` ${name}`;
    item.append(label);
    legend.append(item);
  });
  svg.querySelector("title").textContent = drawn.map((name) => `${name}: ${curves[name][0][1]} to ${curves[name].at(-1)[1]}`).join("; ");
  document.getElementById("drawn").textContent = String(drawn.length);
}

const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of body.rows) {
    const facts = Object.entries(runs[row.cells[0].dataset.value] || {}).map(([key, value]) => `${key}=${value}`);
    const all = [row.textContent, ...facts].join(" ").toLowerCase();
    row.hidden = !words.every((word) => all.includes(word));
    if (!row.hidden) count += 1;
  }
  document.getElementById("shown").textContent = `${count} of ${body.rows.length}`;
  draw();
});
document.getElementById("search").hidden = body.rows.length < 2;
draw();
