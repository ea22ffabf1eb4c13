import type { JupyterFrontEndPlugin } from '@jupyterlab/application';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'gpudev-lab:panel',
  description: 'The lease that this server runs on.',
  autoStart: true,
  activate: () => undefined
};

export default plugin;
