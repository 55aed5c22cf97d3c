// On a phone, a table that does not fit shows its rows one below the other: see extra.css.
const phone = matchMedia("(max-width: 44.9375em)");
const FEW_WORDS = 5;
const NARROW = 130; // pixels

function words(cell) {
  return cell.innerText.split(/\s+/).length;
}

function fits(table) {
  const cells = [...table.querySelectorAll("td")];
  const prose = cells.filter((cell) => words(cell) > FEW_WORDS);
  const room = table.closest(".md-content__inner").clientWidth;
  const overflows = Math.max(table.scrollWidth, table.offsetWidth) > room;
  return !prose.some((cell) => overflows || cell.offsetWidth < NARROW);
}

function label(table) {
  const labels = [...table.querySelectorAll("th")].map((cell) => cell.innerText.trim());
  for (const row of table.tBodies[0].rows) {
    [...row.cells].forEach((cell, column) => {
      if (labels[column]) cell.dataset.label = labels[column];
    });
  }
}

function arrange() {
  for (const table of document.querySelectorAll("article table:not([class])")) {
    delete table.dataset.rows;
    if (phone.matches && !fits(table)) {
      label(table);
      table.dataset.rows = "";
    }
  }
}

arrange();
phone.addEventListener("change", arrange);
