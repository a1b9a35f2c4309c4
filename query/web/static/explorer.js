// What every page may want: jobs that are watched. Pages work without it.
"use strict";

(() => {
  const said = (job) => {
    const many = (n) => n.toLocaleString("en");
    if (job.state === "waiting") return job.ahead ? `Waiting for ${job.ahead} before it` : "Waiting";
    if (job.state !== "running") return job.state;
    const stage = job.stage ? job.stage[0].toUpperCase() + job.stage.slice(1) : "Beginning";
    if (job.n_total) return `${stage}: ${many(job.n_done)} of ${many(job.n_total)}`;
    return job.n_done ? `${stage}: ${many(job.n_done)}` : stage;
  };

  // Tells of a job until it ends. A lost connection is taken up again by the browser; where the server has
  // forgotten the job, `lost` is called.
  const watch = (id, { told, lost }) => {
    const source = new EventSource(`/api/jobs/${encodeURIComponent(id)}/events`);
    source.addEventListener("job", (event) => {
      const job = JSON.parse(event.data);
      if (!["waiting", "running"].includes(job.state)) source.close();
      told(job);
    });
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) lost();
    });
    return source;
  };

  const post = async (path, fields) => {
    const answer = await fetch(`/api${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields),
    });
    const told = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(told.error), { field: told.field });
    return told;
  };

  // Keys that do something, unless somebody types. `/` goes to the first field, `?` lists them all.
  const known = new Map();
  const keys = (more) => {
    for (const [key, one] of Object.entries(more)) known.set(key, one);
  };
  const help = document.getElementById("keys");
  const list = () => {
    const table = help.querySelector("dl");
    table.replaceChildren();
    for (const [key, one] of known) {
      const row = document.createElement("div");
      const name = document.createElement("dt");
      const pressed = document.createElement("kbd");
      pressed.textContent = key;
      name.append(pressed);
      const told = document.createElement("dd");
      told.textContent = one.told;
      row.append(name, told);
      table.append(row);
    }
    help.showModal();
  };
  const types = (element) => element.closest("input:not([type=checkbox], [type=radio]), textarea, select, dialog");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || types(event.target)) return;
    const one = known.get(event.key);
    if (!one || (one.when && !one.when())) return;
    event.preventDefault();
    one.run();
  });
  keys({
    "/": {
      told: "first field",
      run: () => document.querySelector("main :is(textarea, input:not([type=hidden], [type=checkbox]), select)")?.focus(),
    },
    "?": { told: "these keys", run: list },
  });
  document.getElementById("show-keys")?.addEventListener("click", list);

  window.proponent = { watch, post, said, keys };

  for (const shown of document.querySelectorAll("[data-job]")) {
    const state = shown.querySelector(".job-state");
    let best = "[]";
    // The page as it is now has the cards, so that they are written in one place; its answer may be the result already.
    const showBest = async () => {
      const answer = await fetch(location.href);
      if (answer.redirected) location.replace(answer.url);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("so-far");
      const old = document.getElementById("so-far");
      if (fresh && old) old.replaceWith(document.importNode(fresh, true));
    };
    const bar = shown.querySelector(".job-bar");
    watch(shown.dataset.job, {
      told: (job) => {
        state.textContent = said(job);
        if (job.n_total) {
          bar.max = job.n_total;
          bar.value = job.n_done;
        } else bar.removeAttribute("value");
        if (!job.url && JSON.stringify(job.best) !== best) {
          best = JSON.stringify(job.best);
          showBest().catch(() => {}); // the next word of the job tries again
        }
        if (job.url) location.replace(job.url);
        else if (job.state === "failed" || job.state === "cancelled") location.reload();
      },
      lost: () => location.reload(),
    });
  }
})();
