// Sorts a table by the column whose heading is pressed, and back.
for (const button of document.querySelectorAll("button.sort")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const body = heading.closest("table").tBodies[0];
    const rising = heading.getAttribute("aria-sort") === "descending";
    for (const other of heading.parentNode.children) {
      other.removeAttribute("aria-sort");
    }
    heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const value = (row) => {
      const cell = row.cells[heading.cellIndex];
      return cell.dataset.v === undefined ? cell.textContent : +cell.dataset.v;
    };
    const order = (a, b) =>
      typeof a === "number" ? a - b : a.localeCompare(b);
    const rows = [...body.rows];
    rows.sort((a, b) => (rising ? 1 : -1) * order(value(a), value(b)));
    body.append(...rows);
  });
}
