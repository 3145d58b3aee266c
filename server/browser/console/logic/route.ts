/** Where one is in the console, as the hash of the page's address, so that every place can be linked to. */

export type Route =
  | { screen: 'peers' | 'trust' | 'account' | 'unknown' }
  | { screen: 'peer'; id: string }
  | { screen: 'module'; id: string; module: string }
  | { screen: 'files'; id: string; module: string; path: string };

/** Read a hash such as `#/peers/123/modules/My.Echo.Module`. What makes no sense is `unknown`. */
export function parseRoute(hash: string): Route {
  let parts: string[];
  try {
    parts = hash
      .replace(/^#?\/?/, '')
      .split('/')
      .filter(Boolean)
      .map(decodeURIComponent);
  } catch {
    return { screen: 'unknown' };
  }
  const [area = 'peers', id, kind, module, ...rest] = parts;
  if (area === 'trust' || area === 'account') return { screen: id === undefined ? area : 'unknown' };
  if (area !== 'peers') return { screen: 'unknown' };
  if (id === undefined) return { screen: 'peers' };
  if (kind === undefined || (kind === 'modules' && module === undefined)) return { screen: 'peer', id };
  if (kind === 'modules' && module !== undefined && rest.length === 0) return { screen: 'module', id, module };
  if (kind === 'files' && module !== undefined) return { screen: 'files', id, module, path: rest.join('/') };
  return { screen: 'unknown' };
}

/** The hash of a place. */
export function href(route: Route): string {
  const parts: string[] = [];
  if (route.screen === 'trust' || route.screen === 'account') parts.push(route.screen);
  else parts.push('peers');
  if ('id' in route) parts.push(route.id);
  if (route.screen === 'module') parts.push('modules', route.module);
  if (route.screen === 'files') parts.push('files', route.module, ...route.path.split('/').filter(Boolean));
  return '#/' + parts.map(encodeURIComponent).join('/');
}
