import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { IDocumentManager } from '@jupyterlab/docmanager';

import { type ISaveResult, saveAll, saveWorkspace } from './save';

interface IOpen {
  path: string;
  dirty?: boolean;
  writable?: boolean;
  save: () => Promise<void>;
}

/** A page with these documents open; each may be seen in several tabs. */
function save(open: IOpen[], tabs = 1): Promise<ISaveResult> {
  const contexts = new Map<unknown, unknown>();
  for (const { path, dirty = true, writable = true, save } of open) {
    const context = { path, model: { dirty }, contentsModel: { writable }, save };
    for (let tab = 0; tab < tabs; tab++) {
      contexts.set({ path, tab }, context);
    }
  }
  const shell = { widgets: () => [...contexts.keys(), { path: 'a launcher' }].values() };
  const documents = { contextForWidget: (widget: unknown) => contexts.get(widget) };
  return saveAll(shell as unknown as JupyterFrontEnd.IShell, documents as unknown as IDocumentManager, 5000);
}

beforeEach(() => {
  jest.useFakeTimers();
  Object.assign(globalThis, {
    window: {
      setTimeout: (work: () => void, wait: number) => setTimeout(work, wait),
      clearTimeout: (timer: number) => clearTimeout(timer)
    }
  });
});

afterEach(() => jest.useRealTimers());

it('saves each document with changes once, however many tabs show it', async () => {
  const work = jest.fn(async () => {});
  expect(await save([{ path: 'a.ipynb', save: work }], 2)).toEqual({ saved: 1, unsaved: [] });
  expect(work).toHaveBeenCalledTimes(1);
});

it('leaves alone what has no changes or cannot be written', async () => {
  const work = jest.fn(async () => {});
  const open = [
    { path: 'clean.py', dirty: false, save: work },
    { path: 'theirs.py', writable: false, save: work }
  ];
  expect(await save(open)).toEqual({ saved: 0, unsaved: [] });
  expect(work).not.toHaveBeenCalled();
});

it('settles all and names those that failed or asked a question that nobody answers', async () => {
  const saving = save([
    { path: 'full.ipynb', save: async () => Promise.reject(new Error('disk full')) },
    { path: 'asks.ipynb', save: () => new Promise(() => {}) },
    { path: 'good.ipynb', save: async () => {} }
  ]);
  await jest.advanceTimersByTimeAsync(5000);
  expect(await saving).toEqual({ saved: 1, unsaved: ['full.ipynb', 'asks.ipynb'] });
});

it('saves what is open where under the name of this page, and gives up in time', async () => {
  const save = jest.fn(async () => {});
  const state = { toJSON: async () => ({ 'layout-restorer:data': { main: {} } }) };
  await saveWorkspace({ save }, state, { name: 'auto-q' }, 5000);
  expect(save).toHaveBeenCalledWith('auto-q', {
    data: { 'layout-restorer:data': { main: {} } },
    metadata: { id: 'auto-q' }
  });
  const never = saveWorkspace({ save: () => new Promise(() => {}) }, state, { name: 'x' }, 5000);
  const outcome = expect(never).rejects.toThrow('too slow');
  await jest.advanceTimersByTimeAsync(5000);
  await outcome;
});
