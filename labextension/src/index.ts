import {
  ILabShell,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import {
  Dialog,
  ICommandPalette,
  InputDialog,
  IWindowResolver,
  showDialog
} from '@jupyterlab/apputils';
import { IDocumentManager } from '@jupyterlab/docmanager';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStateDB } from '@jupyterlab/statedb';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { LeaseModel } from './model';
import { Notices } from './notices';
import { LeasePanel } from './panel';
import { type ISaveResult, saveAll, saveWorkspace } from './save';
import { said } from './said';
import { StatusItem } from './statusitem';
import { choices } from './time';
import { ILeaseModel } from './tokens';
import { hours, type IWords } from './words';

export { ILeaseModel } from './tokens';

const PLUGIN = 'gpudev-lab:panel';
const EVENT = 'gpudev:lease';
/** Of the time for saving, what is kept for the answer. */
const ANSWER_SHARE = 0.25;

const plugin: JupyterFrontEndPlugin<ILeaseModel> = {
  id: PLUGIN,
  description: 'The GPU lease of this server: time left, people, SSH, GPU use, disk.',
  autoStart: true,
  provides: ILeaseModel,
  requires: [IDocumentManager],
  optional: [
    ILabShell,
    IStatusBar,
    ICommandPalette,
    ISettingRegistry,
    ITranslator,
    IStateDB,
    IWindowResolver
  ],
  activate
};

export default plugin;

function activate(
  app: JupyterFrontEnd,
  documents: IDocumentManager,
  shell: ILabShell | null,
  statusBar: IStatusBar | null,
  palette: ICommandPalette | null,
  registry: ISettingRegistry | null,
  translator: ITranslator | null,
  state: IStateDB | null,
  resolver: IWindowResolver | null
): ILeaseModel {
  const trans = words(translator ?? nullTranslator);
  const model = new LeaseModel(app.serviceManager.serverSettings, trans);
  const notices = new Notices(model, trans);
  const panel = new LeasePanel(
    model,
    trans,
    () => release(model, trans),
    text => notices.say(text)
  );

  app.serviceManager.events.stream.connect((_, event) => {
    if (event.schema_id === EVENT) {
      model.hint(event['what']);
    }
  });
  app.serviceManager.connectionFailure.connect(() => model.failing());
  saveOnRequest(model, async milliseconds => {
    const [result] = await Promise.all([
      saveAll(app.shell, documents, milliseconds),
      // The documents are what counts: without this the page opens as it was a moment before.
      state &&
        resolver &&
        saveWorkspace(app.serviceManager.workspaces, state, resolver, milliseconds).catch(error =>
          console.warn('The workspace was not saved.', error)
        )
    ]);
    return result;
  });
  addCommands(app, model, panel, notices, trans, palette);

  // Only a server that stands on a reservation shows anything.
  let added = false;
  model.changed.connect(() => {
    if (added || !model.lease?.reservation) {
      return;
    }
    added = true;
    shell?.add(panel, 'right', { rank: 900, type: 'GPU lease' });
    statusBar?.registerStatusItem(PLUGIN, {
      item: new StatusItem(model, trans, () => void app.commands.execute('gpudev:open')),
      align: 'left',
      rank: 0
    });
  });
  void app.restored.then(async () => {
    void model.refresh();
    if (registry) {
      const settings = await registry.load(PLUGIN);
      const read = (): void => {
        model.warnings = settings.composite['warnings'] as number[];
      };
      settings.changed.connect(read);
      read();
    }
  });
  return model;
}

/** When the lease ends the server asks every page to save; each request is answered once. */
function saveOnRequest(
  model: LeaseModel,
  save: (milliseconds: number) => Promise<ISaveResult>
): void {
  const answered = new Set<string>();
  model.changed.connect(() => {
    const request = model.lease?.save;
    if (!request || answered.has(request.id)) {
      return;
    }
    answered.add(request.id);
    const left = Date.parse(request.until) - model.now.getTime();
    void save(Math.max(500, left * (1 - ANSWER_SHARE))).then(result =>
      model.saved(request.id, result.saved, result.unsaved)
    );
  });
}

/** The panel's words, with the language that they are in. Who did not choose one has English, and
 * dates as the browser writes them. */
function words(translator: ITranslator): IWords {
  const bundle = translator.load('gpudev_lab');
  const code = translator.languageCode.replace('_', '-');
  return {
    __: bundle.__.bind(bundle),
    _n: bundle._n.bind(bundle),
    locale: code === 'en' || code === 'default' ? undefined : code
  };
}

async function release(model: LeaseModel, trans: IWords): Promise<void> {
  const asked = await showDialog({
    title: trans.__('Give the GPUs back?'),
    body: trans.__(
      'The lease ends now: open documents are saved, the disk is snapshotted, and this server stops.'
    ),
    buttons: [
      Dialog.cancelButton({ label: trans.__('Keep the lease') }),
      Dialog.warnButton({ label: trans.__('Give them back') })
    ]
  });
  if (asked.button.accept) {
    await model.release();
  }
}

function addCommands(
  app: JupyterFrontEnd,
  model: LeaseModel,
  panel: LeasePanel,
  notices: Notices,
  trans: IWords,
  palette: ICommandPalette | null
): void {
  const isEnabled = (): boolean => !!model.lease?.reservation;
  const isOwners = (): boolean => isEnabled() && !!model.lease?.visitor.owner;
  const category = trans.__('GPU lease');
  const args = { isPalette: true };
  app.commands.addCommand('gpudev:open', {
    label: trans.__('Show the GPU Lease'),
    isEnabled,
    execute: () => app.shell.activateById(panel.id)
  });
  app.commands.addCommand('gpudev:extend', {
    label: trans.__('Extend the GPU Lease…'),
    isEnabled: isOwners,
    execute: () => extend(model, notices, trans)
  });
  app.commands.addCommand('gpudev:snapshot', {
    label: trans.__('Take a Snapshot of the Disk'),
    isEnabled: () => isOwners() && !!model.lease?.disk,
    execute: () => tell(model.snapshot(), notices, trans.__('A snapshot is being taken.'))
  });
  app.commands.addCommand('gpudev:release', {
    label: trans.__('Give the GPUs Back…'),
    isEnabled: isOwners,
    execute: () => tell(release(model, trans), notices, '')
  });
  for (const command of ['gpudev:open', 'gpudev:extend', 'gpudev:snapshot', 'gpudev:release']) {
    palette?.addItem({ command, category, args });
  }
}

async function extend(model: LeaseModel, notices: Notices, trans: IWords): Promise<void> {
  await model.refresh();
  const offer = model.lease?.reservation?.extension ?? null;
  const amounts = choices(offer);
  if (!amounts.length) {
    const why = offer?.limited_by;
    notices.refuse(why ? said(why, model.now, trans) : trans.__('The lease cannot be extended now.'));
    return;
  }
  const items = amounts.map(amount => hours(amount, trans));
  const asked = await InputDialog.getItem({ title: trans.__('Extend the lease by'), items });
  const amount = amounts[items.indexOf(asked.value ?? '')];
  if (asked.button.accept && amount !== undefined) {
    await tell(model.extend(amount), notices, trans.__('The lease is extended.'));
  }
}

async function tell(work: Promise<void>, notices: Notices, done: string): Promise<void> {
  try {
    await work;
    notices.done(done);
  } catch (error) {
    notices.refuse(error instanceof Error ? error.message : String(error));
  }
}
