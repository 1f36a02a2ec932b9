// Where Outfeed lies: these modules stand below its /static/, perhaps below the path of a proxy.

const found = /^(.*\/)static\/(?:v-[^/]+\/)?event-feed\/root\.js/.exec(import.meta.url);

/** The address that Outfeed's own paths begin at, with a slash at the end; of a copy of this folder, its origin. */
export const ROOT = found ? found[1] : `${new URL(import.meta.url).origin}/`;
