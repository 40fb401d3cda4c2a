module.exports = "acid-npm-dep";
