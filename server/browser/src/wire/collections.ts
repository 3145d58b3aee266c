/** What lists and maps lack. */

/** Sorts by name, in the order of code units: the same everywhere. */
export const byName = (one: { name: string }, other: { name: string }): number => (one.name < other.name ? -1 : 1);

/** Forget the oldest entry of a map that has become larger than it may. */
export function dropOldest(map: Map<unknown, unknown>, most: number): void {
  if (map.size > most) map.delete(map.keys().next().value);
}
