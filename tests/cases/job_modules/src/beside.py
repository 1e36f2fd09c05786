NAME = "beside job"
