import { useEffect } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import { StoreContext, useRoute, useStore } from './parts/hooks.ts';
import { Notices } from './parts/notices.tsx';
import type { Route } from './logic/route.ts';
import type { Store } from './logic/store.ts';
import { AccountScreen } from './screens/account.tsx';
import { Header } from './screens/header.tsx';
import { PeerScreen } from './screens/peer.tsx';
import { PeersScreen } from './screens/peers.tsx';
import { TrustScreen } from './screens/trust.tsx';
import { UnknownScreen } from './screens/unknown.tsx';
import { WelcomeScreen } from './screens/welcome.tsx';

export function App({ store }: { store: Store }) {
  return (
    <StoreContext.Provider value={store}>
      <Inside />
    </StoreContext.Provider>
  );
}

function Inside() {
  const store = useStore();
  const route = useRoute();
  useLeaveWarning(store);
  if (store.phase !== 'in') return <WelcomeScreen />;
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to content
      </a>
      <Header />
      <main id="main" tabIndex={-1}>
        <Notices />
        {screenOf(route)}
      </main>
      <p class="unseen" role="status" aria-label="Presence">
        {store.announcement}
      </p>
    </>
  );
}

function screenOf(route: Route): ComponentChildren {
  switch (route.screen) {
    case 'peers':
      return <PeersScreen />;
    case 'trust':
      return <TrustScreen />;
    case 'account':
      return <AccountScreen />;
    case 'unknown':
      return <UnknownScreen />;
    default:
      return <PeerScreen key={route.id} route={route} />;
  }
}

/** The hash of the page is where one is: it is not to be used for this. */
function skip(event: Event): void {
  event.preventDefault();
  document.getElementById('main')!.focus();
}

/** To leave the page ends what is being copied. */
function useLeaveWarning(store: Store): void {
  useEffect(() => {
    const warn = (event: Event): void => {
      if (store.transfers.some(({ state }) => state === 'running')) event.preventDefault();
    };
    addEventListener('beforeunload', warn);
    return () => removeEventListener('beforeunload', warn);
  }, [store]);
}
