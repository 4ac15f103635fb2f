document$.subscribe(() => {
  // The theme's search has no name for those who hear the page.
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  document.getElementById("__search")?.setAttribute("aria-label", "Search");
  // Wide tables scroll within themselves: by keys, too.
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) {
    box.tabIndex = 0;
  }
});
