import type { Route } from '../logic/route.ts';
import { US } from '../logic/presence.ts';
import { href } from '../logic/route.ts';
import { servesFiles } from '../logic/transfers.ts';
import { Heading } from '../parts/heading.tsx';
import { useStore } from '../parts/hooks.ts';
import { Icon } from '../parts/icon.tsx';
import { FilesPanel } from './files.tsx';
import { ModulesPanel } from './modules.tsx';
import { PeerCard } from './peer_card.tsx';
import { useModules } from './use_modules.ts';

/** One peer: the way to it, what it serves, its files. */
export function PeerScreen({ route }: { route: Extract<Route, { id: string }> }) {
  const store = useStore();
  const { id } = route;
  const peer = store.peers.find((one) => one.id === id);
  if (!peer) return <AbsentPeer id={id} />;
  return <PresentPeer id={id} name={peer.name} route={route} />;
}

function PresentPeer({ id, name, route }: { id: string; name: string; route: Extract<Route, { id: string }> }) {
  const modules = useModules(id);
  const folders = modules.list?.filter(servesFiles) ?? [];
  const tab = (to: Route, text: string, current: boolean) => (
    <a href={href(to)} aria-current={current ? 'page' : undefined}>
      {text}
    </a>
  );
  return (
    <>
      <BackToPeers />
      <Heading title={'module' in route ? `${route.module} of ${name} ${id}` : `${name} ${id}`}>
        {name} <span class="mono">{id}</span>
      </Heading>
      <PeerCard id={id} name={name} />
      <nav class="tabs" aria-label="Peer">
        {tab({ screen: 'peer', id }, 'Modules', route.screen !== 'files')}
        {folders.map((module) =>
          tab(
            { screen: 'files', id, module: module.name, path: '' },
            module.name,
            route.screen === 'files' && route.module === module.name,
          ),
        )}
      </nav>
      {route.screen === 'files' ? (
        <FilesPanel key={`${route.module}/${route.path}`} id={id} name={name} module={route.module} path={route.path} />
      ) : (
        <ModulesPanel id={id} name={name} modules={modules} chosen={route.screen === 'module' ? route.module : ''} />
      )}
    </>
  );
}

function AbsentPeer({ id }: { id: string }) {
  const store = useStore();
  const name = store.nameOf(id);
  const others = store.peers.filter((one) => one.name === name);
  return (
    <>
      <BackToPeers />
      <Heading title={`${name} ${id}`.trim()} />
      <p class="box">This peer is not online. A program gets a new peer id each time it starts.</p>
      {others.length > 0 && (
        <>
          <p>{name === US ? 'Your other peers:' : `Online of ${name}:`}</p>
          <ul>
            {others.slice(0, 20).map((one) => (
              <li key={one.id}>
                <a class="mono" href={href({ screen: 'peer', id: one.id })} aria-label={`${one.name} ${one.id}`}>
                  {one.id}
                </a>
              </li>
            ))}
          </ul>
        </>
      )}
    </>
  );
}

function BackToPeers() {
  return (
    <a class="back" href="#/peers">
      <Icon name="back" />
      All peers
    </a>
  );
}
