// The logic of the panel. Nothing of JupyterLab is loaded: a test puts doubles in its place where needed.
module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/src'],
  testRegex: 'src/.*\\.spec\\.ts$',
  transform: { '\\.ts$': ['ts-jest', { tsconfig: 'tsconfig.test.json' }] },
  // Times are shown in the zone of whoever looks; the tests look from Berlin.
  globalSetup: '<rootDir>/jest.zone.js'
};
