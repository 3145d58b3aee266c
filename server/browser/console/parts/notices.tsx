import { ErrorBox } from './error_box.tsx';
import { useStore } from './hooks.ts';
import { Icon } from './icon.tsx';

/** What happened without being asked for. */
export function Notices() {
  const store = useStore();
  return (
    <div class="notices" role="region" aria-label="Notices" aria-live="polite" hidden={!store.notices.length}>
      {store.notices.map(({ key, text, error }) => (
        <div key={key} class="notice">
          {error ? <ErrorBox error={error} quiet /> : <p class="box">{text}</p>}
          <button type="button" class="plain" aria-label="Dismiss notice" onClick={() => store.dismiss(key)}>
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}
