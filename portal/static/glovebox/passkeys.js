// allauth's own script drives the passkeys; this one says on the page when the browser refused.
document.addEventListener("allauth.error", (event) => {
  event.preventDefault();
  const problem = document.getElementById("passkey-problem");
  document.getElementById("content").prepend(problem);
  problem.hidden = false;
});
