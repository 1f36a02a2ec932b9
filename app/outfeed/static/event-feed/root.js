// The address of Outfeed: these modules are below its /static/, possibly below a proxy's path.

const found = /^(.*\/)static\/(?:v-[^/]+\/)?event-feed\/root\.js/.exec(import.meta.url);

/** The base address of Outfeed's paths, with a slash at the end; for a copy of this folder, its origin. */
export const ROOT = found ? found[1] : `${new URL(import.meta.url).origin}/`;

/** Whether a server of Outfeed has sent these modules, so that its other files are beside them. */
export const IS_SERVED = found !== null;
