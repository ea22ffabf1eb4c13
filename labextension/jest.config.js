// The logic of the panel: modules without imports of JupyterLab, so nothing of it is loaded.
module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/src'],
  testRegex: 'src/.*\\.spec\\.ts$',
  transform: { '\\.ts$': ['ts-jest', { tsconfig: 'tsconfig.test.json' }] },
  // Times are shown in the zone of whoever looks; the tests look from Berlin.
  globalSetup: '<rootDir>/jest.zone.js'
};
