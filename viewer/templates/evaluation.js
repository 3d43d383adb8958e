// Every page works without this. A choice is shown at once; the arrow keys go to the prompt before and to the next one.
"use strict";

for (const form of document.querySelectorAll("form.choose")) {
  form.addEventListener("change", (event) => { if (event.target.matches("select")) form.requestSubmit(); });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const way = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  const target = event.key === "/" ? document.getElementById("search") : way && document.querySelector(`a[rel=${way}]`);
  if (!target) return;
  event.preventDefault();
  if (way) target.click(); else target.focus();
});
