// How many notes there are, as it changes. Without this the number is that of when the page was made.
const count = document.getElementById("count");
if (count && "EventSource" in window) {
  const events = new EventSource("/live");
  events.onmessage = (event) => { count.textContent = event.data; };
  // A page that is left keeps no thread of the server.
  window.addEventListener("pagehide", () => events.close());
}
