// The question form: the model's completion without leaving the page, and the target picked by selecting text.
"use strict";

(() => {
  const form = document.getElementById("ask");
  if (!form) return;
  const { prompt, target } = form.elements;
  const box = document.getElementById("select-target");
  const text = document.getElementById("selectable");
  const state = document.getElementById("completing");
  const button = document.getElementById("complete");

  let tapped = false; // whether somebody put the cursor where it is
  text.addEventListener("pointerup", () => {
    tapped = true;
  });
  const show = () => {
    tapped = false;
    text.value = prompt.value + target.value;
    box.hidden = !text.value;
  };
  for (const one of [prompt, target]) one.addEventListener("input", show);
  show();

  document.getElementById("take-selection").addEventListener("click", () => {
    const { value } = text;
    let { selectionStart: start, selectionEnd: end } = text;
    if (start === end) {
      // A finger only puts the cursor somewhere: then all from the word there on, with the space before it.
      const word = value.slice(0, start).search(/\s\S*$/);
      if (!tapped || word < 0 || start === value.length) {
        state.textContent = "Select the target first, or tap on its first word.";
        return;
      }
      [start, end] = [word, value.length];
    }
    prompt.value = value.slice(0, start);
    target.value = value.slice(start, end);
    state.textContent = "";
    show();
    target.focus();
  });

  button.addEventListener("click", async (event) => {
    event.preventDefault();
    if (!prompt.value) {
      state.textContent = "Write a prompt first.";
      return;
    }
    button.disabled = true;
    state.textContent = "Waiting for the model";
    const done = (message) => {
      button.disabled = false;
      state.textContent = message;
    };
    const fields = { prompt: prompt.value, chat: form.elements.chat.checked };
    if (form.elements.encoder.value) fields.encoder = form.elements.encoder.value;
    try {
      const job = await window.proponent.post("/completions", fields);
      window.proponent.watch(job.job, {
        told: (now) => {
          if (now.state === "done") {
            target.value = now.value;
            show();
            done("The target is what the model says.");
          } else if (now.state === "failed") done(now.error);
          else if (now.state === "cancelled") done("Cancelled.");
          else state.textContent = window.proponent.said(now);
        },
        lost: () => done("The connection was lost; try again."),
      });
    } catch (error) {
      done(error.message);
    }
  });
})();
