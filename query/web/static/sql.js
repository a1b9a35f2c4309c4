// The SQL console: runs without leaving the page, can be cancelled, completes words, remembers what was run in this tab.
"use strict";

(() => {
  const form = document.getElementById("console");
  const editor = document.getElementById("query");
  const list = document.getElementById("completions");
  const state = document.getElementById("running");
  const cancel = document.getElementById("cancel");
  const LONGEST = 15000; // characters of an address; longer statements are sent as a form
  const KEPT = 30;

  // Running

  let asked = null;

  const replaced = (text) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    for (const id of ["result", "query-told"]) {
      const found = page.getElementById(id);
      if (found) document.getElementById(id).replaceWith(document.adoptNode(found));
    }
    document.querySelector(".mistake")?.remove();
    const mistake = page.querySelector(".mistake");
    if (mistake) document.getElementById("query-told").parentElement.after(document.adoptNode(mistake));
    const typed = page.getElementById("query");
    for (const name of ["aria-invalid", "data-start", "data-end"]) {
      if (typed?.hasAttribute(name)) editor.setAttribute(name, typed.getAttribute(name));
      else editor.removeAttribute(name);
    }
    return Boolean(typed);
  };

  const markMistake = () => {
    if (!editor.dataset.start) return;
    // Places count characters, and a text area counts UTF-16 units.
    const units = (n) => Array.from(editor.value).slice(0, n).join("").length;
    editor.focus();
    editor.setSelectionRange(units(+editor.dataset.start), units(+editor.dataset.end));
  };

  const address = (fields) => `/sql?${new URLSearchParams(fields)}`;

  const run = async (fields) => {
    if (asked) return;
    close();
    asked = new AbortController();
    const began = performance.now();
    const told = () => {
      state.textContent = `Running, ${((performance.now() - began) / 1000).toFixed(0)} s`;
    };
    told();
    const clock = setInterval(told, 1000);
    cancel.hidden = false;
    form.setAttribute("aria-busy", "true");
    const where = address(fields);
    const short = where.length < LONGEST;
    try {
      const answer = short
        ? await fetch(where, { signal: asked.signal })
        : await fetch("/sql", { method: "POST", body: new URLSearchParams(fields), signal: asked.signal });
      if (!replaced(await answer.text())) {
        state.textContent = `The server answered ${answer.status}; try again in a moment.`;
        return;
      }
      if (short) history.pushState(null, "", where);
      remember(fields.query);
      if (answer.ok) {
        state.textContent = `${document.getElementById("rows")?.textContent ?? ""}.`;
        ready();
      } else {
        state.textContent = "It has a mistake.";
        markMistake();
      }
    } catch (error) {
      state.textContent = error.name === "AbortError" ? "Cancelled." : "The connection was lost; try again.";
    } finally {
      clearInterval(clock);
      cancel.hidden = true;
      form.removeAttribute("aria-busy");
      asked = null;
    }
  };

  const fieldsOf = (one) => Object.fromEntries([...new FormData(one)].filter(([, value]) => value !== ""));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(fieldsOf(form));
  });
  cancel.addEventListener("click", () => asked?.abort());
  window.addEventListener("popstate", () => location.reload());
  editor.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });

  // The rows: a chart drawn anew without leaving the page, and the table as text to be pasted

  const ready = () => {
    const axes = document.querySelector(".axes");
    axes?.addEventListener("submit", (event) => {
      event.preventDefault();
      run(fieldsOf(axes));
    });
    const copy = document.getElementById("copy");
    const table = document.querySelector("#result table.rows");
    if (!copy || !table || !navigator.clipboard) return;
    copy.hidden = false;
    copyCells(table);
    copy.addEventListener("click", async () => {
      const cells = (row) => [...row.cells].map((cell) => cell.textContent.replace(/[\t\n\r]+/g, " "));
      await navigator.clipboard.writeText([...table.rows].map((row) => cells(row).join("\t")).join("\n"));
      state.textContent = "The table is copied.";
    });
  };

  // One button, which is in the cell under the pointer or with the focus. Arrow keys go from cell to cell.
  const copyCells = (table) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy-cell";
    const into = (cell) => {
      if (!cell || button.parentElement === cell) return;
      button.setAttribute("aria-label", `Copy the cell of ${table.rows[0].cells[cell.cellIndex].textContent}`);
      cell.append(button);
    };
    const cellOf = (event) => event.target.closest("tbody td");
    button.addEventListener("click", async () => {
      const cell = button.parentElement;
      if ("cut" in cell.dataset) {
        state.textContent = "The cell is too long to be here as a whole; a file of all rows has it.";
        return;
      }
      await navigator.clipboard.writeText(cell.dataset.whole ?? cell.textContent);
      state.textContent = "The cell is copied.";
    });
    for (const name of ["pointermove", "pointerup", "focusin"]) {
      table.addEventListener(name, (event) => into(cellOf(event)));
    }
    let entry = table.tBodies[0].rows[0].cells[0];
    entry.tabIndex = 0;
    table.addEventListener("keydown", (event) => {
      const cell = cellOf(event);
      const by = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key];
      if (!cell || !by) return;
      const row = table.tBodies[0].rows[cell.parentElement.sectionRowIndex + by[0]];
      const next = row?.cells[cell.cellIndex + by[1]];
      if (!next) return;
      event.preventDefault();
      entry.tabIndex = -1;
      entry = next;
      entry.tabIndex = 0;
      entry.focus();
    });
  };

  // What was run in this tab

  const section = document.getElementById("history-section");
  const past = () => {
    try {
      return JSON.parse(sessionStorage.getItem("sql")) ?? [];
    } catch {
      return [];
    }
  };

  const remember = (query) => {
    try {
      sessionStorage.setItem("sql", JSON.stringify([query, ...past().filter((one) => one !== query)].slice(0, KEPT)));
    } catch {
      return; // no storage, no history
    }
    showPast();
  };

  const showPast = () => {
    const items = past().map((query) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = query.length > 120 ? `${query.slice(0, 120)}…` : query;
      button.addEventListener("click", () => {
        editor.value = query;
        editor.focus();
      });
      item.append(button);
      return item;
    });
    document.getElementById("history-list").replaceChildren(...items);
    section.hidden = !items.length;
  };

  // Completion

  let choices = [];
  let chosen = -1;
  let word = "";
  let soon = 0;
  let turn = 0;

  function close() {
    clearTimeout(soon);
    turn += 1;
    list.hidden = true;
    choices = [];
    chosen = -1;
    editor.removeAttribute("aria-activedescendant");
  }

  const choose = (index) => {
    chosen = (index + choices.length) % choices.length;
    [...list.children].forEach((item, place) => item.setAttribute("aria-selected", String(place === chosen)));
    editor.setAttribute("aria-activedescendant", `completion-${chosen}`);
    list.children[chosen].scrollIntoView({ block: "nearest" });
  };

  const take = (index) => {
    const at = editor.selectionStart;
    editor.setRangeText(choices[index].text, at - word.length, at, "end");
    close();
    editor.focus();
  };

  const complete = async () => {
    const at = editor.selectionStart;
    const before = editor.value.slice(0, at);
    const after = editor.value.slice(at);
    if (at !== editor.selectionEnd || before.length + after.length > 3000) return close();
    const mine = ++turn;
    let found;
    try {
      const answer = await fetch(`/api/sql/words?${new URLSearchParams({ before, after })}`);
      if (!answer.ok) return close();
      found = await answer.json();
    } catch {
      return close();
    }
    if (mine !== turn) return undefined;
    if (!found.completions.length) return close();
    choices = found.completions;
    word = found.word;
    list.replaceChildren(
      ...choices.map(({ text, what }, index) => {
        const item = document.createElement("li");
        const kind = document.createElement("span");
        item.id = `completion-${index}`;
        item.setAttribute("role", "option");
        item.setAttribute("aria-selected", "false");
        kind.textContent = what;
        item.append(text, kind);
        item.addEventListener("mousedown", (event) => {
          event.preventDefault();
          take(index);
        });
        return item;
      }),
    );
    list.hidden = false;
    chosen = -1;
    return undefined;
  };

  editor.setAttribute("aria-autocomplete", "list");
  editor.setAttribute("aria-controls", "completions");
  editor.addEventListener("input", () => {
    clearTimeout(soon);
    const before = editor.value.slice(0, editor.selectionStart);
    if (/[\w.]{2,}$|\b(from|join)\s$/i.test(before)) soon = setTimeout(complete, 120);
    else close();
  });
  editor.addEventListener("keydown", (event) => {
    if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      complete();
      return;
    }
    if (list.hidden) return;
    const does = {
      ArrowDown: () => choose(chosen + 1),
      ArrowUp: () => choose(chosen < 0 ? -1 : chosen - 1),
      Tab: () => !event.shiftKey && take(Math.max(chosen, 0)),
      Escape: close,
      Enter: () => !event.ctrlKey && !event.metaKey && chosen >= 0 && take(chosen),
    }[event.key];
    if (!does) return;
    if (does() === false) close();
    else event.preventDefault();
  });
  editor.addEventListener("blur", close);

  document.getElementById("keys-hint").hidden = false;
  showPast();
  ready();
  markMistake();
})();
