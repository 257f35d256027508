// Small helps for reading. The book is whole without them: links and anchors are made when it is built.
(() => {
  "use strict";

  // Paper has nothing to click on: open solutions while printing.
  const opened = [];
  const open = () => document.querySelectorAll("details:not([open])").forEach((d) => { d.open = true; opened.push(d); });
  const close = () => { while (opened.length) opened.pop().open = false; };
  window.addEventListener("beforeprint", open);
  window.addEventListener("afterprint", close);

  // A link into a closed solution opens it; mathematics that was typeset late must not move the target away.
  const reveal = () => {
    const name = decodeURIComponent(location.hash.slice(1));
    const target = name && document.getElementById(name);
    if (!target) return;
    for (let d = target.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
    target.scrollIntoView();
  };
  window.addEventListener("hashchange", reveal);

  const ready = () => {
    // What scrolls sideways can be scrolled by keyboard.
    document.querySelectorAll("div.math, .cell_output pre, div.highlight pre, .pst-scrollable-table-container").forEach((box) => {
      if (box.scrollWidth > box.clientWidth + 1 && !box.hasAttribute("tabindex")) box.tabIndex = 0;
    });
    // "# (2.3)" in a comment of a code cell leads to equation (2.3) of this page.
    document.querySelectorAll(".cell_input .highlight :is(.c1, .c)").forEach((comment) => {
      if (!/\(\d+\.\d+\)/.test(comment.textContent)) return;
      const parts = comment.textContent.split(/(\(\d+\.\d+\))/);
      comment.replaceChildren(...parts.map((part) => {
        const id = "eq-" + part.slice(1, -1).replace(".", "-");
        if (!/^\(\d+\.\d+\)$/.test(part) || !document.getElementById(id)) return document.createTextNode(part);
        const link = document.createElement("a");
        link.href = "#" + id;
        link.className = "dl-eq";
        link.textContent = part;
        return link;
      }));
    });
    if (location.hash) reveal();
  };
  const start = () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(ready, ready);
  if (document.readyState === "complete") start();
  else window.addEventListener("load", start);
})();
