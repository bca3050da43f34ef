"use strict";

// A click or Enter on a heading sorts its table: numbers by value, words as people sort them, what is missing last.
const words = new Intl.Collator(undefined, { numeric: true });

function compare(a, b) {
  if (a.dataset.value === undefined || b.dataset.value === undefined) {
    if (a.dataset.value !== b.dataset.value) return a.dataset.value === undefined ? 1 : -1; // numbers before words
    return words.compare(a.textContent, b.textContent);
  }
  const [x, y] = [Number(a.dataset.value), Number(b.dataset.value)];
  return x < y ? -1 : x > y ? 1 : 0;
}

function sort(table, column) {
  const headings = [...table.tHead.rows[0].cells];
  const descending = headings[column].getAttribute("aria-sort") === "ascending";
  const missing = (row) => row.cells[column].dataset.missing !== undefined;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    return (descending ? -1 : 1) * compare(a.cells[column], b.cells[column]);
  });
  table.tBodies[0].append(...rows);
  headings.forEach((heading) => heading.setAttribute("aria-sort", "none"));
  headings[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => sort(table, column));
  });
}

// One sound at a time.
document.addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("audio")) {
    if (player !== event.target) player.pause();
  }
}, true);

// Light or dark: the system's choice until the button says otherwise.
const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : dark.matches;
}

function nameTheme() {
  theme.textContent = isDark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
}

theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
dark.addEventListener("change", nameTheme);
nameTheme();
theme.hidden = false;
