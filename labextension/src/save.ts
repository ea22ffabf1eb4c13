import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { IWindowResolver } from '@jupyterlab/apputils';
import type { IDocumentManager } from '@jupyterlab/docmanager';
import type { Workspace } from '@jupyterlab/services';
import type { IStateDB } from '@jupyterlab/statedb';

/** What became of the open documents of this page. */
export interface ISaveResult {
  saved: number;
  unsaved: string[];
}

/**
 * Saves every document with changes that is open in this page. One that cannot be saved, or asks a
 * question that nobody is here to answer, does not keep the others.
 */
export async function saveAll(
  shell: JupyterFrontEnd.IShell,
  documents: IDocumentManager,
  milliseconds: number
): Promise<ISaveResult> {
  const contexts = new Set(
    [...shell.widgets('main')].flatMap(widget => documents.contextForWidget(widget) ?? [])
  );
  const dirty = [...contexts].filter(
    context => context.model.dirty && context.contentsModel?.writable
  );
  const results = await Promise.allSettled(
    dirty.map(context => withLimit(context.save(), milliseconds))
  );
  return {
    saved: results.filter(result => result.status === 'fulfilled').length,
    unsaved: dirty.flatMap((context, index) =>
      results[index]?.status === 'fulfilled' ? [] : [context.path]
    )
  };
}

/**
 * Saves which documents are open, and where, as JupyterLab does by itself 750 ms after the last
 * change: a server that ends sooner would come back with the page of a moment before.
 */
export async function saveWorkspace(
  workspaces: Pick<Workspace.IManager, 'save'>,
  state: Pick<IStateDB, 'toJSON'>,
  resolver: Pick<IWindowResolver, 'name'>,
  milliseconds: number
): Promise<void> {
  const id = resolver.name;
  const saving = async (): Promise<void> =>
    workspaces.save(id, { data: (await state.toJSON()) as Workspace.IWorkspace['data'], metadata: { id } });
  await withLimit(saving(), milliseconds);
}

function withLimit(work: Promise<void>, milliseconds: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = window.setTimeout(() => reject(new Error('too slow')), milliseconds);
    work.then(resolve, reject).finally(() => window.clearTimeout(timer));
  });
}
