// Sends a file as the body of one PUT, so that no part of it lands in a form's upload folder.
const size = (bytes) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${bytes.toFixed(unit ? 1 : 0)} ${units[unit]}`;
};

for (const form of document.querySelectorAll("form.upload")) {
  const file = form.querySelector("input[type=file]");
  const bar = form.querySelector("progress");
  const words = form.querySelector("[role=status]");
  const send = form.querySelector("button:not([type=button])");
  const cancel = form.querySelector("[data-cancel]");
  const busy = (yes) => {
    send.disabled = file.disabled = yes;
    bar.hidden = cancel.hidden = !yes;
  };
  const say = (sentence, wrong) => {
    words.textContent = sentence;
    words.className = wrong ? "note bad" : "small";
    if (wrong) busy(false);
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const body = file.files[0];
    if (!body) return;
    const request = new XMLHttpRequest(); // fetch() does not tell how much was sent
    request.open("PUT", form.dataset.address);
    request.setRequestHeader("Content-Type", "application/zip");
    request.setRequestHeader("X-CSRFToken", form.dataset.token);
    request.upload.onprogress = (step) => {
      bar.max = step.total;
      bar.value = step.loaded;
      const sent = words.dataset.sent.replace("{sent}", size(step.loaded)).replace("{total}", size(step.total));
      say(step.loaded < step.total ? sent : words.dataset.keeping, false);
    };
    request.onload = () => {
      if (request.status === 201) { window.location.reload(); return; }
      let sentence = words.dataset.broken;
      try { sentence = JSON.parse(request.responseText).error.message; } catch { /* no JSON: the neutral sentence */ }
      say(sentence, true);
    };
    request.onerror = () => say(words.dataset.broken, true);
    request.onabort = () => say(words.dataset.stopped, true);
    cancel.onclick = () => request.abort();
    busy(true);
    request.send(body);
  });
}
