// The list of hits: the histogram that is brushed, tokens and documents fetched in place, and the keyboard.
"use strict";

(() => {
  const facets = document.getElementById("facets");
  const hits = () => [...document.querySelectorAll(".hits > li")];
  const parser = new DOMParser();

  // Empty fields make addresses long.
  const submit = () => {
    for (const one of facets.elements) if (one.name && !one.value) one.disabled = true;
    facets.submit();
  };
  facets.addEventListener("submit", (event) => {
    if (event.submitter && event.submitter.formMethod === "post") return;
    for (const one of facets.elements) if (one.name && !one.value) one.disabled = true;
    setTimeout(() => {
      for (const one of facets.elements) one.disabled = false;
    });
  });
  document.getElementById("sort").addEventListener("change", submit);
  if (window.matchMedia("(max-width: 60rem)").matches) facets.querySelector("details").open = false;

  const brush = document.getElementById("brush");
  if (brush) {
    const bins = [...brush.querySelectorAll(".bin")];
    let from = null;
    const at = (event) => {
      let best = 0;
      bins.forEach((bin, place) => {
        if (bin.getBoundingClientRect().left <= event.clientX) best = place;
      });
      return best;
    };
    const range = (event) => {
      const to = at(event);
      return [Math.min(from, to), Math.max(from, to)];
    };
    const show = ([first, last]) =>
      bins.forEach((bin, place) => bin.classList.toggle("chosen", place >= first && place <= last));
    brush.addEventListener("pointerdown", (event) => {
      from = at(event);
      brush.setPointerCapture(event.pointerId);
      show([from, from]);
      event.preventDefault();
    });
    brush.addEventListener("pointermove", (event) => {
      if (from !== null) show(range(event));
    });
    brush.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const [first, last] = range(event);
      from = null;
      facets.elements.since.value = bins[first].dataset.since;
      facets.elements.until.value = bins[last].dataset.until;
      submit();
    });
  }

  const page = async (address) => {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error("This could not be loaded; try again.");
    return parser.parseFromString(await answer.text(), "text/html");
  };

  const tell = (item, message) => {
    let shown = item.querySelector(".hit-told");
    if (!shown) {
      shown = document.createElement("span");
      shown.className = "hit-told told";
      shown.setAttribute("role", "status");
      item.querySelector(".hit-actions").append(" ", shown);
    }
    shown.textContent = message;
  };

  const shade = async (item) => {
    const button = item.querySelector(".shade");
    if (!button || button.disabled) return;
    button.disabled = true;
    const path = new URL(button.formAction).pathname;
    const failed = (message) => {
      button.disabled = false;
      tell(item, message);
    };
    try {
      const job = await window.proponent.post(path, {});
      window.proponent.watch(job.job, {
        told: async (now) => {
          if (now.state === "done") {
            try {
              const fresh = (await page(now.url)).querySelector("article.hit");
              item.querySelector("article.hit").replaceWith(document.importNode(fresh, true));
              button.remove();
              tell(item, "Shaded.");
            } catch (error) {
              failed(error.message);
            }
          } else if (now.state === "failed") failed(now.error);
          else if (now.state === "cancelled") failed("Cancelled.");
          else tell(item, window.proponent.said(now));
        },
        lost: () => failed("The connection was lost; try again."),
      });
    } catch (error) {
      failed(error.message);
    }
  };

  const open = async (item) => {
    const link = item.querySelector("a.in-document");
    const shown = item.querySelector(".fetched");
    if (shown) {
      shown.remove();
      link.setAttribute("aria-expanded", "false");
      return;
    }
    try {
      const fetched = document.createElement("div");
      fetched.className = "fetched";
      fetched.tabIndex = 0;
      fetched.setAttribute("role", "group");
      fetched.setAttribute("aria-label", "The document, scrolls");
      fetched.append(document.importNode((await page(link.href)).querySelector(".document-passages"), true));
      item.append(fetched);
      link.setAttribute("aria-expanded", "true");
      const current = fetched.querySelector(".this");
      if (current) fetched.scrollTop = current.offsetTop - fetched.offsetTop - 40;
    } catch (error) {
      tell(item, error.message);
    }
  };

  document.addEventListener("click", (event) => {
    const item = event.target.closest(".hits > li");
    if (!item || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest(".shade")) shade(item);
    else if (event.target.closest("a.in-document")) open(item);
    else return;
    event.preventDefault();
  });

  // Whole sources come when they have been added up.
  const shares = document.getElementById("shares");
  if (shares.dataset.weighing) {
    const look = async () => {
      const fresh = await page(location.href);
      for (const part of ["#shares", ".question .buttons"]) {
        document.querySelector(part).replaceWith(document.importNode(fresh.querySelector(part), true));
      }
    };
    const failed = () => (shares.querySelector("[role=status]").textContent = "The connection was lost.");
    window.proponent.watch(shares.dataset.weighing, {
      told: (job) => {
        if (!["waiting", "running"].includes(job.state)) look().catch(failed);
      },
      lost: () => look().catch(failed),
    });
  }

  // j and k go through the hits of a side, h and l change sides.
  const current = () => document.activeElement?.closest?.(".hits > li");
  const focus = (item) => {
    const card = item?.querySelector("article.hit");
    if (!card) return;
    card.tabIndex = -1;
    card.focus({ preventScroll: true });
    item.scrollIntoView({ block: "nearest" });
  };
  const step = (by) => {
    const item = current();
    const all = item ? [...item.parentElement.children] : hits();
    focus(item ? all[all.indexOf(item) + by] : all[0]);
  };
  const across = () => {
    const item = current();
    const lists = [...document.querySelectorAll(".hits")];
    const other = lists.find((list) => !item || list !== item.parentElement);
    if (!other) return;
    const place = item ? [...item.parentElement.children].indexOf(item) : 0;
    focus(other.children[Math.min(place, other.children.length - 1)]);
  };
  window.proponent.keys({
    j: { told: "next hit", run: () => step(1) },
    k: { told: "hit before", run: () => step(-1) },
    h: { told: "other side", run: across },
    l: { told: "other side", run: across },
    Enter: {
      told: "the passage in its document",
      run: () => current() && open(current()),
      when: () => document.activeElement.matches("article.hit"),
    },
    t: { told: "shade the tokens of the hit", run: () => current() && shade(current()) },
    n: { told: "next page", run: () => document.querySelector("a[rel=next]")?.click() },
    p: { told: "page before", run: () => document.querySelector("a[rel=prev]")?.click() },
  });
})();
