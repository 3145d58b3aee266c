import { CopyButton } from './copy_button.tsx';

/** The fingerprint of a key, which may be broken between its groups. `whose` names it: “bob's fingerprint”. */
export function Fingerprint({ value, whose }: { value: string; whose: string }) {
  return (
    <span class="fingerprint">
      <code>
        {value.split('-').map((group, index) => (
          <>
            {index > 0 && (
              <>
                -<wbr />
              </>
            )}
            {group}
          </>
        ))}
      </code>
      <CopyButton text={value} what={`${whose} fingerprint`} />
    </span>
  );
}
