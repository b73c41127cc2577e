// The list of nuclei: sorted by a column, filtered by another, a part of them at a time.

import { fetched } from "./layers.js";
import { named } from "./panel.js";

const UNLISTED = new Set(["x", "y", "x_um", "y_um"]);
const WAIT = 250; // milliseconds after a key
const byId = (id) => document.getElementById(id);

function made(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

export class NucleiList {
  // `choose` is called with the number of a nucleus that a person asks for.
  constructor(choose) {
    this.choose = choose;
    this.image = null;
    this.selected = 0;
    this.sort = { column: "id", descending: false };
    this.asked = 0;
    for (const id of ["column", "low", "high"]) {
      byId(id).addEventListener("input", () => {
        clearTimeout(this.due);
        this.due = setTimeout(() => this.load(), WAIT);
      });
    }
    byId("filter").addEventListener("submit", (event) => event.preventDefault());
    byId("more").addEventListener("click", () => this.load(this.shown));
    byId("rows").querySelector("tbody").addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) this.choose(Number(row.dataset.number));
    });
  }

  open(image) {
    this.image = image;
    byId("nuclei").hidden = !image?.measured;
    byId("column").replaceChildren();
    byId("low").value = byId("high").value = "";
    this.sort = { column: "id", descending: false };
    this.load();
  }

  // Show the list from its beginning, or the part that follows.
  async load(start = 0) {
    if (!this.image?.measured) return; // it was closed meanwhile
    const { column, descending } = this.sort;
    const asked = ++this.asked;
    const wanted = new URLSearchParams({ sort: column, descending, start, column: byId("column").value || "id" });
    for (const id of ["low", "high"]) if (byId(id).value !== "") wanted.set(id, byId(id).value);
    try {
      const list = await (await fetched(`${this.image.address}/nuclei?${wanted}`)).json();
      if (asked === this.asked) this.show(list, start);
    } catch (error) {
      if (asked === this.asked) this.refuse(error.message);
    }
  }

  show({ columns, rows, found }, start) {
    const listed = [...columns.keys()].filter((at) => !UNLISTED.has(columns[at]));
    const [head, body] = ["thead", "tbody"].map((name) => byId("rows").querySelector(name));
    if (!byId("column").options.length) {
      for (const at of listed) byId("column").add(new Option(this.title(columns[at]), columns[at]));
      head.replaceChildren(made("tr", {}, ...listed.map((at) => this.heading(columns[at]))));
    }
    for (const heading of head.querySelectorAll("th")) {
      const way = this.sort.descending ? "descending" : "ascending";
      heading.ariaSort = heading.dataset.column === this.sort.column ? way : "none";
    }
    if (start === 0) body.replaceChildren();
    body.append(...rows.map((row) => this.row(row[0], listed.map((at) => row[at]))));
    this.shown = start + rows.length;
    const all = found === this.image.count ? "" : ` of ${this.image.count.toLocaleString("en")}`;
    byId("found").textContent = `${found.toLocaleString("en")}${all} ${found === 1 && !all ? "nucleus" : "nuclei"}`;
    byId("more").hidden = this.shown >= found;
    this.mark(this.selected);
  }

  title(column) {
    const [name, unit] = named(column);
    return unit ? `${name} (${unit})` : name;
  }

  heading(column) {
    const button = made("button", { type: "button", textContent: this.title(column) });
    button.addEventListener("click", () => {
      const again = this.sort.column === column;
      this.sort = { column, descending: again ? !this.sort.descending : column !== "id" }; // the largest first
      this.load();
    });
    const heading = made("th", { scope: "col" }, button);
    heading.dataset.column = column;
    return heading;
  }

  row(number, [, ...values]) {
    const cells = values.map((value) => made("td", { textContent: value === null ? "–" : value }));
    const button = made("button", { type: "button", textContent: number, ariaLabel: `Show nucleus ${number}` });
    const row = made("tr", {}, made("td", {}, button), ...cells);
    row.dataset.number = number;
    return row;
  }

  // The nucleus that is selected, wherever that was done.
  mark(number) {
    this.selected = number;
    for (const row of byId("rows").querySelectorAll("tbody tr")) {
      row.ariaCurrent = Number(row.dataset.number) === number ? "true" : null;
    }
  }

  refuse(text) {
    byId("rows").querySelector("tbody").replaceChildren();
    byId("found").textContent = text;
    byId("more").hidden = true;
  }
}
