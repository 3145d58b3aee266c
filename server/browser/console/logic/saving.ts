/** Where a file that comes is put: on disk as it comes, where the browser can do that, else into memory first. */

/** Bytes that are taken into memory, where there is no other way. */
const MEMORY_LIMIT = 2 ** 30;

export interface Sink {
  write(data: Uint8Array): Promise<void>;
  /** The file is whole. */
  close(): Promise<void>;
  /** Throw away what came. */
  abort(): Promise<void>;
}

interface FilePicker {
  showSaveFilePicker?(options: { suggestedName: string }): Promise<FileSystemFileHandle>;
}

/** Ask where to put a file. It must be called at once when a button was pressed. Null if it was thought better of. */
export async function openSink(name: string): Promise<Sink | null> {
  const picker = (window as FilePicker).showSaveFilePicker;
  if (!picker) return memorySink(name);
  try {
    const handle = await picker.call(window, { suggestedName: name.replaceAll(/[\\/:*?"<>|\x00-\x1f]/g, '_') });
    const file = await handle.createWritable();
    return { write: (data) => file.write(data as BufferSource), close: () => file.close(), abort: () => file.abort() };
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') return null;
    throw error;
  }
}

function memorySink(name: string): Sink {
  let parts: Blob[] = [];
  let size = 0;
  return {
    async write(data) {
      size += data.length;
      if (size > MEMORY_LIMIT)
        throw new RangeError('This browser takes files of at most 1 GiB: use “bv copy” for larger ones.');
      parts.push(new Blob([data as BufferSource]));
    },
    async close() {
      saveBlob(new Blob(parts), name);
    },
    async abort() {
      parts = [];
    },
  };
}

/** Hand a blob to the browser as a download. */
export function saveBlob(blob: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // The browser has it by then; the address itself would hold the bytes for as long as the page lives.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
