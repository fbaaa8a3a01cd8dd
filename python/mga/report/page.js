"use strict";
for (const figure of document.querySelectorAll("figure.compare")) {
  const stack = figure.querySelector(".stack");
  const range = figure.querySelector("input[type=range]");
  const box = figure.querySelector("input[type=checkbox]");
  const veil = figure.querySelector(".veil");
  const show = () => {
    stack.style.setProperty("--at", range.value + "%");
    range.setAttribute("aria-valuetext", range.value + " % original");
  };
  const follow = (event) => {
    const place = stack.getBoundingClientRect();
    range.value = String((100 * (event.clientX - place.left)) / place.width);
    show();
  };
  range.addEventListener("input", show);
  stack.addEventListener("pointerdown", (event) => {
    stack.setPointerCapture(event.pointerId);
    follow(event);
  });
  stack.addEventListener("pointermove", (event) => {
    if (stack.hasPointerCapture(event.pointerId)) follow(event);
  });
  stack.addEventListener("dragstart", (event) => event.preventDefault());
  if (box) {
    const toggle = () => { veil.hidden = !box.checked; };
    box.addEventListener("change", toggle);
    toggle();
  }
  show();
}
