def who():
    import helper

    return ["main", helper.NAME]
