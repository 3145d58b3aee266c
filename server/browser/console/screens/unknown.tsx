import { Heading } from '../parts/heading.tsx';

export function UnknownScreen() {
  return (
    <>
      <Heading title="Nothing here" />
      <p>
        The address of this page leads nowhere. <a href="#/peers">See who is online.</a>
      </p>
    </>
  );
}
