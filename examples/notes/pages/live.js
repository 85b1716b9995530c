// How many notes there are, as it changes. Without this the number is that of when the page was made.
const count = document.getElementById("count");
let events;
// A page that nobody sees has no stream: a browser opens six connections to a site, and behind each stream is a thread.
function listen() {
  events?.close();
  if (document.visibilityState !== "visible") return;
  events = new EventSource("/live");
  events.onmessage = (event) => { count.textContent = event.data; };
  // The user has opened more pages than there are streams for one.
  events.addEventListener("end", () => events.close());
}
if (count && "EventSource" in window) {
  document.addEventListener("visibilitychange", listen);
  listen();
}
