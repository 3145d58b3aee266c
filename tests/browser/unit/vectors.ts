/** The vectors that all languages are held to. */

export { default as identity } from '../../vectors/identity.json' with { type: 'json' };
export { default as contacts } from '../../vectors/contacts.json' with { type: 'json' };
export { default as frames } from '../../vectors/frames.json' with { type: 'json' };
export { default as links } from '../../vectors/links.json' with { type: 'json' };
export { default as session } from '../../vectors/session.json' with { type: 'json' };
export { default as signals } from '../../vectors/signals.json' with { type: 'json' };
