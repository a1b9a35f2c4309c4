// Status: what moves is loaded again while something runs, and everything else stays as the reader left it.
"use strict";

(() => {
  const EVERY_MS = 5000;
  const PARTS = ["figures", "under-way", "told-live", "jobs", "latest"];

  // Scrolled tables stay where they are, and what has not changed is not touched, so that nothing is announced twice.
  const replace = (id, page) => {
    const shown = document.getElementById(id);
    const fresh = page.getElementById(id);
    if (!fresh || shown.outerHTML === fresh.outerHTML) return;
    if (id === "told-live") shown.textContent = fresh.textContent;
    else if (!shown.contains(document.activeElement)) {
      const left = [...shown.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
      shown.replaceWith(document.adoptNode(fresh));
      fresh.querySelectorAll(".scroll").forEach((one, place) => one.scrollTo(left[place] ?? 0, 0));
    }
  };

  const isLive = () => "live" in document.getElementById("under-way").dataset;

  const refresh = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href);
        if (answer.ok) {
          const page = new DOMParser().parseFromString(await answer.text(), "text/html");
          for (const id of PARTS) replace(id, page);
        }
      } catch {
        // The server is away for a moment, or for good: what was last known stays.
      }
    }
    if (isLive()) setTimeout(refresh, EVERY_MS);
  };

  if (isLive()) setTimeout(refresh, EVERY_MS);
})();
