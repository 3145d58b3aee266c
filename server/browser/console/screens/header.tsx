import { Icon } from '../parts/icon.tsx';
import { useRoute, useStore } from '../parts/hooks.ts';
import { ThemeButton } from '../parts/theme_button.tsx';

export function Header() {
  const store = useStore();
  const route = useRoute();
  const area = 'id' in route ? 'peers' : route.screen;
  const { online, username } = store.bv;
  const link = (screen: string, text: string) => (
    <a href={`#/${screen}`} aria-current={area === screen ? 'page' : undefined}>
      {text}
    </a>
  );
  return (
    <header class="top">
      <a class="brand" href="#/peers" aria-label="BoneValue console">
        <Icon name="logo" />
        <span>BoneValue</span>
      </a>
      <nav aria-label="Console">
        {link('peers', 'Peers')}
        {link('trust', 'Trust')}
        {link('account', 'Account')}
      </nav>
      <p class={`presence ${online ? 'good' : 'busy'}`} role="status" aria-label="Connection">
        <i class="dot" />
        {online ? (
          <span>{username}</span>
        ) : (
          <span>
            <span class="wide">Server lost, </span>reconnecting
          </span>
        )}
      </p>
      <ThemeButton />
      <button type="button" class="plain" aria-label="Sign out" title="Sign out" onClick={() => void store.signOut()}>
        <Icon name="out" />
      </button>
    </header>
  );
}
