import { TextField } from './text_field.tsx';

interface Props {
  realm: string;
  onRealm: (realm: string) => void;
  /** Whether others see this tab; undefined where that is not asked. */
  visible?: boolean;
  onVisible?: (visible: boolean) => void;
}

/** What is seldom needed. */
export function ServerOptions({ realm, onRealm, visible, onVisible }: Props) {
  return (
    <details>
      <summary>Server options</summary>
      <TextField
        label="Realm"
        value={realm}
        onText={onRealm}
        exact
        maxLength={253}
        placeholder={location.hostname}
        hint="What accounts are bound to. Only needed if the server has another one than its host name."
      />
      {onVisible && (
        <label class="check">
          <input type="checkbox" checked={visible ?? false} onChange={() => onVisible(!visible)} />
          Show this tab to contacts as a peer
        </label>
      )}
    </details>
  );
}
