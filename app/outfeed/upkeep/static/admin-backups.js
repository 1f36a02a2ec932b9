// Shows the end of a running backup without a click: the page is loaded again every two seconds.

const EVERY_MS = 2_000;

if (document.getElementById("running")) setTimeout(() => location.reload(), EVERY_MS);
