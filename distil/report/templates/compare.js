"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  document.documentElement.classList.add("scripted");

  // Tables: a click on a head sorts the groups; a second click turns the order round.
  all("table.sortable").forEach((table) => {
    const body = table.querySelector("tbody.groups");
    all("th button", table).forEach((button) => button.addEventListener("click", () => {
      const head = button.closest("th");
      const rising = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") !== "ascending" : head.dataset.first !== "descending";
      all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => {
        const text = row.cells[head.cellIndex].dataset.v;
        return text === undefined || text === "" ? NaN : Number(text);
      };
      all("tr", body)
        .map((row) => [value(row), row])
        .sort(([a], [b]) => Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b) : rising ? a - b : b - a)
        .forEach(([, row]) => body.append(row));
    }));
  });

  // Tables wider than the page: how many columns are still to come.
  all(".more").forEach((hint) => {
    const scroll = hint.nextElementSibling;
    const tell = () => {
      const edge = scroll.getBoundingClientRect().right + 1;
      const hidden = all("thead th", scroll).filter((head) => head.getBoundingClientRect().right > edge).length;
      hint.textContent = hidden ? `${hidden} more column${hidden > 1 ? "s" : ""}: scroll →` : "";
    };
    scroll.addEventListener("scroll", tell, { passive: true });
    new ResizeObserver(tell).observe(scroll);
  });

  // Tabs: of panels with one name only the chosen one is shown.
  all("[data-tabs]").forEach((tabs) => {
    const name = tabs.dataset.tabs;
    const choose = (chosen) => {
      all("button", tabs).forEach((button) => button.setAttribute("aria-pressed", button.value === chosen));
      all(`[data-panel^="${name}:"]`).forEach((panel) => { panel.hidden = panel.dataset.panel !== `${name}:${chosen}`; });
    };
    all("button", tabs).forEach((button) => button.addEventListener("click", () => choose(button.value)));
    const first = tabs.querySelector("button");
    if (first) choose(first.value);
  });

  // Legend: a chosen group stands out everywhere, the others step back.
  const chosen = new Set();
  const legend = all(".legend button[data-g]");
  const paint = () => {
    legend.forEach((button) => button.setAttribute("aria-pressed", chosen.has(button.dataset.g)));
    document.body.classList.toggle("picked", chosen.size > 0);
    all("[data-g]:not(button)").forEach((part) => part.classList.toggle("on", chosen.has(part.dataset.g)));
  };
  const flip = (group) => {
    if (!chosen.delete(group)) chosen.add(group);
    paint();
  };
  legend.forEach((button) => button.addEventListener("click", () => flip(button.dataset.g)));

  // Samples: one prompt at a time.
  const samples = all("#samples article");
  const counter = document.querySelector("#samples output");
  let at = 0;
  const show = (next) => {
    if (!samples.length) return;
    at = (next + samples.length) % samples.length;
    samples.forEach((sample, i) => sample.classList.toggle("current", i === at));
    counter.textContent = `${at + 1} of ${samples.length}`;
  };
  all("#samples [data-move]").forEach((button) => button.addEventListener("click", () => show(at + Number(button.dataset.move))));
  show(0);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    if (event.key === "ArrowRight" || event.key === "j") show(at + 1);
    else if (event.key === "ArrowLeft" || event.key === "k") show(at - 1);
    else if (event.key === "Escape") { chosen.clear(); paint(); }
    else if (/^[1-9]$/.test(event.key) && legend[event.key - 1]) flip(legend[event.key - 1].dataset.g);
    else return;
    if (event.target === document.body || event.key.length === 1) event.preventDefault();
  });
})();
