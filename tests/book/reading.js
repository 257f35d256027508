// Run inside a page of the book: what a reader sees there, as plain data.
window.reading = (() => {
  const article = () => document.querySelector(".bd-article") ?? document.body;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const name = (e) => `${e.tagName.toLowerCase()}${e.id ? "#" + e.id : ""}.${String(e.className?.baseVal ?? e.className).trim().replace(/\s+/g, ".")} ` +
    `"${(e.textContent ?? "").trim().replace(/\s+/g, " ").slice(0, 50)}"`;
  const shown = (e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && e.getBoundingClientRect().width > 0;

  // --- colours -------------------------------------------------------------------------------------------
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((c, k) => c * top[3] + below[k] * (1 - top[3]));
  const background = (e) => {
    const layers = [];
    for (let at = e; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const luminance = (c) => {
    const [r, g, b] = c.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };

  const report = () => {
    const root = article();
    const text = root.cloneNode(true);
    all("script, style, pre, code, mjx-container, .math, svg", text).forEach((e) => e.remove());
    const ids = all("[id]").map((e) => e.id);
    return {
      formulas: all(".math.notranslate", root).length,
      typeset: all(".math.notranslate", root).filter((e) => e.querySelector("mjx-container")).length,
      mathErrors: all("mjx-merror, [data-mjx-error], mjx-container [mathcolor=red], mjx-container [style*='color: red']", root).map(name),
      rawTex: (text.textContent.match(/(\$\$|\\tag|\\begin|\\frac|\\mathbb|\\sigma|\\alpha|\\\(|\\\[).{0,40}/g) ?? []),
      links: [...new Set(all("a[href]").map((e) => e.getAttribute("href")).filter((h) => h && !/^(mailto|javascript):/.test(h) && h !== "#"))],
      ids,
      faint: faint(4.5),
      doubleIds: [...new Set(all("[id]", root).filter((e) => !e.closest("svg, mjx-container")).map((e) => e.id))]
        .filter((id) => ids.filter((other) => other === id).length > 1),
      headings: all("h1, h2, h3, h4, h5, h6", root).map((e) => Number(e.tagName[1])),
      images: all("img", root).map((e) => ({ src: e.src.slice(0, 120), alt: e.getAttribute("alt") ?? "", loaded: e.complete && e.naturalWidth > 0 })),
    };
  };

  const tooWide = () => {
    const limit = document.documentElement.clientWidth + 1;
    if (document.scrollingElement.scrollWidth <= limit) return [];
    const scrolls = (e) => { for (let at = e.parentElement; at; at = at.parentElement) if (/auto|scroll|hidden/.test(getComputedStyle(at).overflowX) && at !== document.body && at !== document.documentElement) return true; };
    const culprits = all("body *").filter((e) => shown(e) && e.getBoundingClientRect().right > limit && !scrolls(e)).map(name).slice(0, 8);
    return culprits.length ? culprits : [`the page scrolls to ${document.scrollingElement.scrollWidth} px`];
  };

  // Scrolling goes right, never left of the start: what sticks out there cannot be reached.
  const cutOff = () => all("mjx-container, table, pre, img", article()).filter((e) => {
    if (!shown(e)) return false;
    const box = e.parentElement.getBoundingClientRect();
    return e.getBoundingClientRect().left < box.left - 1 - e.parentElement.scrollLeft;
  }).map(name).slice(0, 8);

  // Everything that makes up the picture of a figure, without its controls and its text.
  const picture = (figure) => all("img, svg, canvas, div, picture, path", figure).map((e) => {
    const style = getComputedStyle(e), box = e.getBoundingClientRect(), frame = figure.getBoundingClientRect();
    return [e.tagName, e.currentSrc ?? "", e.tagName === "CANVAS" ? e.toDataURL() : "", e.tagName === "svg" ? e.innerHTML : "",
      e.querySelector("img, svg, canvas") || /^(img|svg|canvas|path)$/i.test(e.tagName) ? [style.display, style.visibility, style.opacity, style.transform, style.objectPosition,
        style.clipPath, box.x - frame.x, box.width].join() : "", style.backgroundPosition + style.backgroundImage.slice(-200)].join("|");
  }).join("\n");

  const faint = (least) => {
    const found = [];
    for (const e of all("p, li, h1, h2, h3, h4, td, th, summary, figcaption, a, label, pre, pre span, code, .bd-toc-nav a, .bd-links a, .dl-interactive span, .dl-interactive button", document.body)) {
      const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
      if (!own || !shown(e) || e.closest("svg, mjx-container, button:not(.dl-interactive button), .visually-hidden, .skip-link") || e.matches(".headerlink")) continue;
      const behind = background(e), ink = over(rgba(getComputedStyle(e).color), behind), value = contrast(ink, behind);
      if (value < least) found.push(`${value.toFixed(2)} ${name(e)}`);
    }
    return [...new Set(found)].slice(0, 12);
  };

  const boxed = () => {
    const page = background(article());
    return all("img, .dl-interactive svg, .dl-interactive canvas", article()).filter((e) => shown(e) && background(e).some((c, k) => Math.abs(c - page[k]) > 3))
      .map((e) => `${name(e)} on rgb(${background(e).map(Math.round)}), the page is rgb(${page.map(Math.round)})`).slice(0, 8);
  };

  const figure = (control) => control.closest(".dl-interactive, figure, .cell_output") ?? control.parentElement;
  const visible = (selector) => all(selector).filter(shown).map(name);
  return { report, tooWide, cutOff, figure, picture, faint, boxed, visible };
})();
