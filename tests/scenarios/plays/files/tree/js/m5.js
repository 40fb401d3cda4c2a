console.log(5)
