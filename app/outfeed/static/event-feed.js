// The address of <event-feed> for pages: the module is event-feed/event-feed.js, in the folder that npm packs.

import "./event-feed/event-feed.js";
