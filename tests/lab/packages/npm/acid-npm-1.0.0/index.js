module.exports = "acid-npm";
