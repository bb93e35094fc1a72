// Nothing here is needed to read the report: it opens the contents beside the text, marks the section that is read,
// opens what is folded for paper, and keeps tables that fit out of the order of the tab key.
(() => {
  const contents = document.querySelector("#contents details");
  const wide = matchMedia("(min-width: 70rem)");
  const fit = () => { contents.open = wide.matches; };
  wide.addEventListener("change", fit);
  fit();
  contents.classList.add("live");
  contents.addEventListener("click", (event) => {
    if (event.target.closest("a") && !wide.matches) contents.open = false;
  });

  const links = new Map([...contents.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
  const heads = [...document.querySelectorAll("h2[id], h3[id]")].filter((head) => links.has(encodeURI(head.id)));
  const mark = () => {
    const above = heads.filter((head) => head.getBoundingClientRect().top < innerHeight / 3);
    const read = links.get(encodeURI((above.pop() ?? heads[0])?.id));
    if (!read || read.hasAttribute("aria-current")) return;
    for (const link of links.values()) link.removeAttribute("aria-current");
    read.setAttribute("aria-current", "location");
    const box = read.getBoundingClientRect(), shown = contents.getBoundingClientRect();
    if (wide.matches && (box.top < shown.top || box.bottom > shown.bottom)) {
      contents.scrollTop += box.top - shown.top - shown.height / 3;
    }
  };
  addEventListener("scroll", () => requestAnimationFrame(mark), { passive: true });

  const reach = () => {
    for (const region of document.querySelectorAll(".scroll")) {
      if (region.clientWidth) region.tabIndex = region.scrollWidth > region.clientWidth ? 0 : -1;
    }
  };
  addEventListener("resize", reach);
  document.addEventListener("toggle", reach, true);

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });

  mark();
  reach();
})();
